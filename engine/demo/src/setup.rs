//! What the processes of a demo are told when they start, and what they are called. Used by the process that starts
//! the demo and by the workers it starts. It must not know what a worker does.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::corpus::CorpusBudget;
use crate::pipeline::FilesBudget;

/// A part of the demo that is a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The engine, with its built-in workers over a store.
    Engine,
    /// Indexes the documents and serves `docs::search`.
    Search,
    /// Serves `docs::read`; one replica of several.
    Read(u32),
    /// Serves `text::summarize`.
    Summarize,
    /// Serves `agents::researcher`.
    Researcher,
    /// Serves `agents::critic`.
    Critic,
    /// Takes questions in and counts answers, for the durable loop.
    Desk,
    /// Reads files into loans: the pipeline's first stage.
    Files,
    /// Cuts blocks into chunks.
    Cut,
    /// Hashes and compresses chunks; one replica of several.
    Digest(u32),
    /// Keeps the accounts of the pipeline.
    Ledger,
}

impl Part {
    /// Whether other processes go on with this one's work when it dies.
    #[must_use]
    pub fn has_replicas(self) -> bool {
        matches!(self, Self::Read(_) | Self::Digest(_))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => formatter.write_str("engine"),
            Self::Search => formatter.write_str("search"),
            Self::Read(number) => write!(formatter, "read-{number}"),
            Self::Summarize => formatter.write_str("summarize"),
            Self::Researcher => formatter.write_str("researcher"),
            Self::Critic => formatter.write_str("critic"),
            Self::Desk => formatter.write_str("desk"),
            Self::Files => formatter.write_str("files"),
            Self::Cut => formatter.write_str("cut"),
            Self::Digest(number) => write!(formatter, "digest-{number}"),
            Self::Ledger => formatter.write_str("ledger"),
        }
    }
}

/// A word that names no part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no part of the demo is called `{found}`")]
pub struct UnknownPart {
    found: String,
}

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(word: &str) -> Result<Self, UnknownPart> {
        let unknown = || UnknownPart { found: word.to_owned() };
        let number = |digits: &str| digits.parse().map_err(|_| unknown());
        match word {
            "engine" => Ok(Self::Engine),
            "search" => Ok(Self::Search),
            "summarize" => Ok(Self::Summarize),
            "researcher" => Ok(Self::Researcher),
            "critic" => Ok(Self::Critic),
            "desk" => Ok(Self::Desk),
            "files" => Ok(Self::Files),
            "cut" => Ok(Self::Cut),
            "ledger" => Ok(Self::Ledger),
            _ => match word.split_once('-') {
                Some(("read", digits)) => number(digits).map(Self::Read),
                Some(("digest", digits)) => number(digits).map(Self::Digest),
                _ => Err(unknown()),
            },
        }
    }
}

/// What every worker of one demo is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Where the engine is; an abstract name, so that no file stays behind.
    pub address: String,
    /// The process that started the demo.
    pub parent: u32,
    /// Where the engine keeps what it acknowledges; it is removed at the end.
    pub data: PathBuf,
    /// The user's folder; none means cargo's registry and the toolchain.
    pub input: Option<PathBuf>,
    /// Documents to take.
    pub documents: CorpusBudget,
    /// How long indexing may take, in milliseconds.
    pub index_ms_max: u64,
    /// Files to take.
    pub files: FilesBudget,
    /// Length of a block of the pipeline.
    pub block_bytes: u64,
    /// Replicas that read documents.
    pub read_replicas: u32,
    /// Replicas that digest chunks.
    pub digest_replicas: u32,
}

impl Setup {
    /// Lists the parts that are workers, those that take longest to start first.
    #[must_use]
    pub fn workers(&self) -> Vec<Part> {
        let readers = (1..=self.read_replicas).map(Part::Read);
        let digesters = (1..=self.digest_replicas).map(Part::Digest);
        let agents = [Part::Summarize, Part::Critic, Part::Researcher, Part::Desk];
        let pipeline = [Part::Files, Part::Cut, Part::Ledger];
        [Part::Search].into_iter().chain(readers).chain(agents).chain(pipeline).chain(digesters).collect()
    }

    /// Returns the name of the socket over which a part serves the same functions for comparison, without the `@`.
    #[must_use]
    pub fn socket_name(&self, part: Part) -> String {
        format!("{}-socket-{part}", self.address.trim_start_matches('@'))
    }

    /// Returns how long indexing may take.
    #[must_use]
    pub fn index_time_max(&self) -> Duration {
        Duration::from_millis(self.index_ms_max)
    }

    /// Returns the arguments that make this executable a worker, for [`crate::workers::run_worker`].
    ///
    /// # Errors
    /// When the folder's name is no UTF-8 and so has no JSON form.
    pub fn arguments(&self, part: Part) -> serde_json::Result<[OsString; 2]> {
        Ok([part.to_string().into(), serde_json::to_string(self)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_called_what_they_read_as() {
        let setup = Setup {
            address: "@demo-1".to_owned(),
            parent: 1,
            data: PathBuf::from("/nowhere"),
            input: None,
            documents: CorpusBudget::default(),
            index_ms_max: 1,
            files: FilesBudget::default(),
            block_bytes: 1,
            read_replicas: 2,
            digest_replicas: 3,
        };
        let workers = setup.workers();
        assert_eq!(workers.len(), 8 + 2 + 3);
        for part in workers.into_iter().chain([Part::Engine]) {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for word in ["", "read", "read-", "read-x", "search-1"] {
            assert!(word.parse::<Part>().is_err(), "{word}");
        }
        assert_eq!(setup.socket_name(Part::Read(2)), "demo-1-socket-read-2");
    }
}
