//! The ringway command.
