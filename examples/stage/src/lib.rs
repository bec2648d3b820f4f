//! An engine and further processes for the examples, so that each of them runs with one command. Used by the examples
//! alone; it must not know what they do.

#![forbid(unsafe_code)]

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};

use ringway_engine::{Engine, Otlp};

/// The variable by which a process learns where its engine is.
const SOCKET_VARIABLE: &str = "RINGWAY_SOCKET";

/// An engine in this process. Its socket has no file, so nothing is left of it.
#[derive(Debug)]
pub struct Stage {
    engine: Engine,
}

impl Stage {
    /// Starts an engine at an address that no other process has.
    ///
    /// # Errors
    /// Whatever keeps the engine from starting.
    pub fn open() -> anyhow::Result<Self> {
        let address = format!("@ringway-example-{}", std::process::id());
        Ok(Self { engine: Engine::builder().address(address).otlp(Otlp::Off).start()? })
    }

    /// Returns where workers attach.
    #[must_use]
    pub fn address(&self) -> &str {
        self.engine.address()
    }

    /// Starts this program again, in a role.
    ///
    /// # Errors
    /// When the system starts no further process.
    pub fn start(&self, role: &str) -> io::Result<Actor> {
        let child = Command::new(std::env::current_exe()?)
            .arg(role)
            .env(SOCKET_VARIABLE, self.address())
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Actor { child })
    }
}

/// A process in a role. Dropping it ends it.
#[derive(Debug)]
pub struct Actor {
    child: Child,
}

impl Actor {
    /// Returns its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to leave and waits until it has.
    ///
    /// # Errors
    /// When its end cannot be waited for.
    pub fn leave(mut self) -> io::Result<ExitStatus> {
        drop(self.child.stdin.take());
        self.child.wait()
    }

    /// Kills it, with no chance to say good-bye.
    ///
    /// # Errors
    /// When it cannot be killed or waited for.
    pub fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already, and been waited for.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Waits until whoever started this process says to leave, or is gone; at a terminal, until Ctrl-D.
///
/// # Errors
/// When standard input cannot be read.
pub fn until_told_to_leave() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}
