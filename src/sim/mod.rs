//! The reference client and, later, the simulated fleet.
