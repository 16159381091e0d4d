
//! The control API `/v1`.
