//! The engine: who is offered what, when and why. Pure: values and a clock reading in, decisions out.
