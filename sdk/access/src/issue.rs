//! Makes everything that a new link needs: an authority (a key that signs tokens, a certificate that signs
//! certificates), what a server listens with, and the credentials file of a client. Used by `ringway link new`. It
//! reads no clock and writes no file; texts go in and out, and times are arguments.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::address::LinkAddress;
use crate::credentials::{Credentials, CredentialsError, Written, WrittenTls};
use crate::grant::Grant;
use crate::key::{IdentityKey, KeyError};
use crate::text::{NoRandomnessError, is_name};
use crate::tls::{CertificateFingerprint, PeerCertificate};
use crate::token::{Claims, TokenError};

/// How long before it was made a certificate holds already, since clocks differ.
const EARLY: Duration = Duration::from_secs(300);
/// The latest end of a certificate, in seconds since 1970: the last second of the year 9999, which is also how a
/// certificate says that it has none (RFC 5280, section 4.1.2.5).
const LATEST_S: u64 = 253_402_300_799;

/// Why something could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The name is none.
    #[error("wanted a name of 1 to 256 bytes without control characters and quotes, found `{found}`")]
    Name {
        /// The name.
        found: String,
    },
    /// The server has no name to be found by.
    #[error("wanted at least one host name or IP address of the server")]
    NoHost,
    /// The authority's texts are none.
    #[error("cannot use the authority: {problem}")]
    Authority {
        /// What is wrong.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {problem}")]
    Certificate {
        /// What is wrong.
        problem: String,
    },
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomnessError),
    /// What was made cannot be read back.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

fn certificate_error(error: rcgen::Error) -> IssueError {
    IssueError::Certificate { problem: error.to_string() }
}

/// What signs tokens and certificates. It belongs where links are made, which need not be where they end: servers want
/// the key's public half and the certificate alone.
#[derive(Debug)]
pub struct Authority {
    issuer: IdentityKey,
    certificate: String,
    key: KeyPair,
}

/// What a server listens with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFiles {
    /// Its certificate, as PEM.
    pub certificate: String,
    /// The private key of it, as PEM.
    pub key: String,
    /// By which a client can pin it.
    pub fingerprint: CertificateFingerprint,
}

/// What a new client is to have.
#[derive(Clone, Debug)]
pub struct ClientRequest<'a> {
    /// Its name: the token's subject, and the certificate's common name.
    pub name: &'a str,
    /// What it may do.
    pub grant: Grant,
    /// Where the link leads, to stand in its file.
    pub address: Option<LinkAddress>,
    /// The name in the server's certificate, if it is not the host of the address.
    pub server_name: Option<&'a str>,
    /// The one certificate of the server that is taken; none: each that the authority has signed.
    pub pin: Option<CertificateFingerprint>,
    /// Whether it gets a certificate too, for servers that ask for one.
    pub with_certificate: bool,
    /// How long token and certificate hold.
    pub lifetime: Duration,
}

/// What a new client was given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientFiles {
    /// The text of its credentials file. It holds private keys.
    pub credentials: String,
    /// The token's id, by which it can be revoked.
    pub token_id: String,
    /// When the token ends, in seconds since 1970.
    pub expires_s: u64,
    /// Its certificate's fingerprint, if it has one.
    pub certificate: Option<CertificateFingerprint>,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// The name is none, or the system gives no random bytes.
    pub fn new(name: &str, now_s: u64, lifetime: Duration) -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let mut params = authority_params(name)?;
        set_lifetime(&mut params, now_s, lifetime);
        let certificate = params.self_signed(&key).map_err(certificate_error)?.pem();
        Ok(Self { issuer: IdentityKey::generate()?, certificate, key })
    }

    /// Takes an authority from its three texts: the key that signs tokens, the certificate, and its key.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn from_pem(issuer: &str, certificate: &str, key: &str) -> Result<Self, IssueError> {
        let problem = |problem: String| IssueError::Authority { problem };
        let authority = Self {
            issuer: IdentityKey::from_pem(issuer)?,
            certificate: certificate.to_owned(),
            // What is wrong with a text that may be a secret is not told in detail.
            key: KeyPair::from_pem(key).map_err(|_| problem("its key cannot be read as PEM".to_owned()))?,
        };
        authority.signer()?;
        Ok(authority)
    }

    /// Returns the key that signs tokens. Its public half is what servers want.
    #[must_use]
    pub const fn issuer(&self) -> &IdentityKey {
        &self.issuer
    }

    /// Returns the certificate that signs others, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the private key of that certificate, as PEM.
    #[must_use]
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    fn signer(&self) -> Result<Issuer<'static, &KeyPair>, IssueError> {
        let problem = |problem: &str| IssueError::Authority { problem: problem.to_owned() };
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let der = der.map_err(|_| problem("its certificate cannot be read as PEM"))?;
        let parsed = webpki::EndEntityCert::try_from(&der);
        let parsed = parsed.map_err(|_| problem("its certificate cannot be read"))?;
        // What is signed with another key than the certificate's no client would take.
        let ours = parsed.subject_public_key_info();
        if !ours.windows(self.key.public_key_raw().len()).any(|part| part == self.key.public_key_raw()) {
            return Err(problem("its key is not that of its certificate"));
        }
        let name = PeerCertificate::of(&der).common_name;
        let name = name.ok_or_else(|| problem("its certificate has no common name"))?;
        Ok(Issuer::new(authority_params(&name)?, &self.key))
    }

    /// Makes a certificate for a server that is found under these host names and IP addresses.
    ///
    /// # Errors
    /// There is no host or a wrong one, the name is none, or the system gives no random bytes.
    pub fn server(
        &self,
        name: &str,
        hosts: &[&str],
        now_s: u64,
        lifetime: Duration,
    ) -> Result<ServerFiles, IssueError> {
        if hosts.is_empty() {
            return Err(IssueError::NoHost);
        }
        let (certificate, key, fingerprint) =
            self.leaf(name, hosts, ExtendedKeyUsagePurpose::ServerAuth, now_s, lifetime)?;
        Ok(ServerFiles { certificate, key, fingerprint })
    }

    /// Makes a client's credentials file: a key, a token for its holder, and what TLS wants.
    ///
    /// # Errors
    /// The name is none, the grant is too long for a token, or the system gives no random bytes.
    pub fn client(&self, wanted: &ClientRequest<'_>, now_s: u64) -> Result<ClientFiles, IssueError> {
        check_name(wanted.name)?;
        let holder = IdentityKey::generate()?;
        let claims = Claims::new(wanted.name, holder.public(), wanted.grant.clone(), now_s, wanted.lifetime)?;
        let mut tls = WrittenTls {
            server_name: wanted.server_name.map(str::to_owned),
            ca: wanted.pin.is_none().then(|| self.certificate.clone()),
            pin: wanted.pin,
            ..WrittenTls::default()
        };
        let mut fingerprint = None;
        if wanted.with_certificate {
            let made =
                self.leaf(wanted.name, &[], ExtendedKeyUsagePurpose::ClientAuth, now_s, wanted.lifetime)?;
            (tls.certificate, tls.certificate_key, fingerprint) = (Some(made.0), Some(made.1), Some(made.2));
        }
        let written = Written {
            address: wanted.address.clone(),
            token: Some(claims.sign(&self.issuer)?),
            key: Some(holder.to_pem()),
            tls: Some(tls),
            ..Written::default()
        };
        let credentials = written.to_text();
        // Before anybody is told that it is good, it is read as its user will.
        Credentials::parse(&credentials)?;
        Ok(ClientFiles {
            credentials,
            token_id: claims.id,
            expires_s: claims.expires_s,
            certificate: fingerprint,
        })
    }

    fn leaf(
        &self,
        name: &str,
        hosts: &[&str],
        usage: ExtendedKeyUsagePurpose,
        now_s: u64,
        lifetime: Duration,
    ) -> Result<(String, String, CertificateFingerprint), IssueError> {
        let hosts: Vec<String> = hosts.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).map_err(certificate_error)?;
        params.distinguished_name = distinguished(name)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        set_lifetime(&mut params, now_s, lifetime);
        let key = KeyPair::generate().map_err(certificate_error)?;
        let certificate = params.signed_by(&key, &self.signer()?).map_err(certificate_error)?;
        Ok((certificate.pem(), key.serialize_pem(), CertificateFingerprint::of(certificate.der())))
    }
}

/// Says whether a server's certificate (PEM) is for a host name or an IP address.
///
/// # Errors
/// The text is no certificate.
pub fn is_for_host(certificate: &str, host: &str) -> Result<bool, IssueError> {
    let problem = |problem: &str| IssueError::Certificate { problem: problem.to_owned() };
    let der = CertificateDer::from_pem_slice(certificate.as_bytes());
    let der = der.map_err(|_| problem("what is there cannot be read as PEM"))?;
    let parsed =
        webpki::EndEntityCert::try_from(&der).map_err(|_| problem("what is there cannot be read"))?;
    let Ok(name) = ServerName::try_from(host) else { return Ok(false) };
    Ok(parsed.verify_is_valid_for_subject_name(&name).is_ok())
}

fn check_name(name: &str) -> Result<(), IssueError> {
    // Quotes would end a text of the credentials file.
    if is_name(name) && !name.contains(['\'', '"']) {
        return Ok(());
    }
    Err(IssueError::Name { found: name.chars().take(80).collect() })
}

fn distinguished(name: &str) -> Result<DistinguishedName, IssueError> {
    check_name(name)?;
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    Ok(distinguished)
}

/// What an authority's certificate is made of, and made of again when it signs: the two must agree in the name.
fn authority_params(name: &str) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(certificate_error)?;
    params.distinguished_name = distinguished(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn set_lifetime(params: &mut CertificateParams, now_s: u64, lifetime: Duration) {
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LATEST_S));
    params.not_before = at(now_s.saturating_sub(EARLY.as_secs()));
    params.not_after = at(now_s.saturating_add(lifetime.as_secs()));
}

#[cfg(test)]
mod tests;
