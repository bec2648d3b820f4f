//! Trace store, logs and OTLP export.
