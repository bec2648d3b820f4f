//! What Ringway's frames and control messages mean.
