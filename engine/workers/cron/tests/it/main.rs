//! The cron worker as its users meet it: a real engine, the store in a folder, the SDK as client.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod doctored;
mod faults;
mod jobs;
mod restarts;
mod seams;
mod stage;
