//! The livepatch-admin command line.
