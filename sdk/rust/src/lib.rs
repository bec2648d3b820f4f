//! Call and serve functions through Ringway.
