//! shoal-plan
