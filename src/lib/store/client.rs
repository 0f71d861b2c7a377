//! client contexts
