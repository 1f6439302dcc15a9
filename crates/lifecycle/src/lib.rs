//! shoal-lifecycle
