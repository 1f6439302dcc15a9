//! shoal-network
