//! Placeholder head while dependencies are fetched.
