//! Whom a server lets in: holders of tokens of known issuers, known certificates, and peers of this host without any,
//! if so set. A plain value; a changed one takes its place. Used by the handshake, and by whoever opens a listener. It
//! must not know connections or clocks.

use crate::address::LinkAddress;
use crate::grant::Grant;
use crate::key::PublicKey;
use crate::tls::{CertificateFingerprint, PeerCertificate};
use crate::token::{Revocations, TokenError, verify};

/// Which certificates an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateIdentity {
    /// This one certificate.
    Fingerprint(CertificateFingerprint),
    /// Any with this common name that the server's authorities for clients have signed.
    CommonName(String),
}

impl CertificateIdentity {
    fn is(&self, certificate: &PeerCertificate) -> bool {
        match self {
            Self::Fingerprint(fingerprint) => *fingerprint == certificate.fingerprint,
            Self::CommonName(name) => certificate.common_name.as_ref() == Some(name),
        }
    }
}

/// By what a peer was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// It holds the key of a token.
    Token {
        /// The token's own id, by which it can be revoked.
        id: String,
        /// The holder's name, as the issuer wrote it.
        subject: String,
        /// The fingerprint of the issuer's key.
        issuer: String,
    },
    /// It has the key of a certificate.
    Certificate {
        /// The certificate's fingerprint.
        fingerprint: CertificateFingerprint,
        /// Its common name.
        common_name: Option<String>,
    },
    /// It showed nothing, and came over the loopback interface.
    Open,
}

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeniedError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the certificate {fingerprint} is of nobody who is known here; add it, or show a token")]
    UnknownCertificate { fingerprint: CertificateFingerprint },
    #[error(
        "wanted a token, or a certificate that is known here, found neither; make credentials with `ringway link new`"
    )]
    Nothing,
}

/// What a peer showed.
pub(crate) struct Shown<'a> {
    pub(crate) token: Option<&'a str>,
    /// What the token's holder must have signed.
    pub(crate) statement: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) certificate: Option<&'a PeerCertificate>,
    pub(crate) loopback: bool,
}

/// Who was let in.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) identity: Identity,
    pub(crate) grant: Grant,
    pub(crate) expires_s: Option<u64>,
}

/// The rules of a server. The default lets nobody in.
#[derive(Clone, Debug, Default)]
pub struct Doorkeeper {
    issuers: Vec<PublicKey>,
    revocations: Revocations,
    certificates: Vec<(CertificateIdentity, Grant)>,
    open: Option<Grant>,
}

impl Doorkeeper {
    /// Takes tokens of an issuer.
    #[must_use]
    pub fn with_issuer(mut self, issuer: PublicKey) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Sets the tokens that hold no more, in place of those before.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// Takes certificates, and says what their holders may do. The first entry that fits decides.
    #[must_use]
    pub fn with_certificate(mut self, certificate: CertificateIdentity, grant: Grant) -> Self {
        self.certificates.push((certificate, grant));
        self
    }

    /// Lets in peers without credentials that come over the loopback interface, and says what they may do.
    #[must_use]
    pub fn with_open_loopback(mut self, grant: Grant) -> Self {
        self.open = Some(grant);
        self
    }

    /// Says whether there is any way to prove who one is: what [`check_exposure`] wants to know.
    #[must_use]
    pub const fn has_authentication(&self) -> bool {
        !self.issuers.is_empty() || !self.certificates.is_empty()
    }

    /// Returns the tokens that hold no more.
    #[must_use]
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Decides. Whoever shows a token is judged by it alone: one that does not hold is a mistake that somebody should hear
    /// of, not a reason to be let in as somebody else.
    pub(crate) fn judge(&self, shown: &Shown<'_>, now_s: u64) -> Result<Admission, DeniedError> {
        if let Some(token) = shown.token {
            let claims = verify(token, &self.issuers, &self.revocations, now_s)?;
            claims.check_holder(&shown.statement, &shown.signature)?;
            let identity = Identity::Token { id: claims.id, subject: claims.subject, issuer: claims.issuer };
            return Ok(Admission { identity, grant: claims.grant, expires_s: Some(claims.expires_s) });
        }
        if let Some(certificate) = shown.certificate {
            let known = self.certificates.iter().find(|(identity, _)| identity.is(certificate));
            if let Some((_, grant)) = known {
                let PeerCertificate { fingerprint, common_name } = certificate.clone();
                let identity = Identity::Certificate { fingerprint, common_name };
                return Ok(Admission { identity, grant: grant.clone(), expires_s: None });
            }
        }
        match (&self.open, shown.certificate) {
            (Some(grant), _) if shown.loopback => {
                Ok(Admission { identity: Identity::Open, grant: grant.clone(), expires_s: None })
            }
            (_, Some(&PeerCertificate { fingerprint, .. })) => {
                Err(DeniedError::UnknownCertificate { fingerprint })
            }
            _ => Err(DeniedError::Nothing),
        }
    }
}

/// A link that would carry calls over a network without both TLS and authentication.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "wanted TLS and authentication for `{address}`, which is not a loopback address, found {found}; make both with `ringway link new`, or use 127.0.0.1"
)]
pub struct ExposureError {
    address: LinkAddress,
    found: &'static str,
}

/// Says whether one may listen at an address, or dial it, with what is configured: off loopback, TLS and authentication
/// must both be there.
///
/// # Errors
/// One of them is missing.
pub fn check_exposure(address: &LinkAddress, tls: bool, authentication: bool) -> Result<(), ExposureError> {
    let found = match (tls, authentication) {
        (true, true) => return Ok(()),
        _ if address.is_loopback() => return Ok(()),
        (true, false) => "TLS alone",
        (false, true) => "authentication alone",
        (false, false) => "neither",
    };
    Err(ExposureError { address: address.clone(), found })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::key::IdentityKey;
    use crate::token::Claims;

    const NOW_S: u64 = 1_772_366_400;

    fn certificate(name: &str) -> PeerCertificate {
        PeerCertificate {
            fingerprint: CertificateFingerprint::of(name.as_bytes()),
            common_name: Some(name.to_owned()),
        }
    }

    fn shown<'a>(certificate: Option<&'a PeerCertificate>, loopback: bool) -> Shown<'a> {
        Shown { token: None, statement: Vec::new(), signature: Vec::new(), certificate, loopback }
    }

    #[test]
    fn off_loopback_both_are_wanted() {
        let check = |address: &str, tls: bool, authentication: bool, found: Option<&str>| {
            let refused = check_exposure(&address.parse().unwrap(), tls, authentication);
            assert_eq!(refused.err().map(|error| error.found), found, "{address} {tls} {authentication}");
        };
        check("ringway://127.0.0.1:1", false, false, None);
        check("ringway://[::1]:1", false, false, None);
        check("ringway://localhost:1", true, false, None);
        check("ringway://0.0.0.0:1", true, true, None);
        check("ringway://0.0.0.0:1", true, false, Some("TLS alone"));
        check("ringway://[::]:1", false, true, Some("authentication alone"));
        check("ringway://example.org:1", false, false, Some("neither"));
        let told =
            check_exposure(&"ringway://10.0.0.1:7".parse().unwrap(), false, false).unwrap_err().to_string();
        assert_eq!(
            told,
            "wanted TLS and authentication for `ringway://10.0.0.1:7`, which is not a loopback address, found neither; \
             make both with `ringway link new`, or use 127.0.0.1"
        );
    }

    #[test]
    fn nobody_is_let_in_by_default() {
        let nobody = Doorkeeper::default();
        assert!(!nobody.has_authentication());
        for certificate in [None, Some(&certificate("a"))] {
            for loopback in [false, true] {
                assert!(nobody.judge(&shown(certificate, loopback), NOW_S).is_err());
            }
        }
    }

    #[test]
    fn peers_without_credentials_come_from_this_host_alone() {
        let open = Doorkeeper::default().with_open_loopback(Grant::everything());
        assert!(!open.has_authentication(), "open is no authentication");
        let admission = open.judge(&shown(None, true), NOW_S).unwrap();
        assert_eq!((admission.identity, admission.grant), (Identity::Open, Grant::everything()));
        assert!(matches!(open.judge(&shown(None, false), NOW_S), Err(DeniedError::Nothing)));
        let stranger = certificate("stranger");
        let refused = open.judge(&shown(Some(&stranger), false), NOW_S);
        assert!(matches!(refused, Err(DeniedError::UnknownCertificate { .. })));
    }

    #[test]
    fn the_first_entry_for_a_certificate_decides() {
        let (one, two) = (Grant::default().with_call("one"), Grant::default().with_call("two"));
        let doorkeeper = Doorkeeper::default()
            .with_certificate(CertificateIdentity::Fingerprint(certificate("a").fingerprint), one.clone())
            .with_certificate(CertificateIdentity::CommonName("b".to_owned()), two.clone())
            .with_certificate(CertificateIdentity::CommonName("a".to_owned()), Grant::everything());
        assert!(doorkeeper.has_authentication());
        let check = |name: &str, expected: Option<&Grant>| {
            let found = doorkeeper.judge(&shown(Some(&certificate(name)), false), NOW_S).ok();
            assert_eq!(found.as_ref().map(|found| &found.grant), expected, "{name}");
        };
        check("a", Some(&one));
        check("b", Some(&two));
        check("c", None);
        let renewed = PeerCertificate { fingerprint: CertificateFingerprint::of(b"new"), ..certificate("b") };
        assert!(
            doorkeeper.judge(&shown(Some(&renewed), false), NOW_S).is_ok(),
            "a name outlives a certificate"
        );
        let nameless = PeerCertificate { common_name: None, ..renewed };
        assert!(doorkeeper.judge(&shown(Some(&nameless), false), NOW_S).is_err());
    }

    #[test]
    fn whoever_shows_a_token_is_judged_by_it_alone() {
        let (issuer, holder) = (IdentityKey::generate().unwrap(), IdentityKey::generate().unwrap());
        let grant = Grant::default().with_call("orders::*");
        let claims =
            Claims::new("edge", holder.public(), grant.clone(), NOW_S, Duration::from_secs(60)).unwrap();
        let token = claims.sign(&issuer).unwrap();
        let known = certificate("a");
        let doorkeeper = Doorkeeper::default()
            .with_issuer(issuer.public())
            .with_certificate(CertificateIdentity::CommonName("a".to_owned()), Grant::everything())
            .with_open_loopback(Grant::everything());
        let judge = |signer: &IdentityKey, now_s: u64| {
            let shown = Shown {
                token: Some(&token),
                statement: b"statement".to_vec(),
                signature: signer.sign(b"statement"),
                certificate: Some(&known),
                loopback: true,
            };
            doorkeeper.judge(&shown, now_s)
        };
        let admission = judge(&holder, NOW_S).unwrap();
        assert_eq!((admission.grant, admission.expires_s), (grant, Some(NOW_S + 60)));
        assert!(matches!(admission.identity, Identity::Token { subject, .. } if subject == "edge"));
        assert!(matches!(judge(&issuer, NOW_S), Err(DeniedError::Token(TokenError::NotTheHolder { .. }))));
        assert!(matches!(judge(&holder, NOW_S + 60), Err(DeniedError::Token(TokenError::Expired { .. }))));
    }
}
