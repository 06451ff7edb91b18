//! The commands of livepatch-server, one file each.
