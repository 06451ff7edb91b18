//! The HTTP surface: extract, one service call, wire type out.
