//! shoal-schedule
