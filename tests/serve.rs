//! Starting, listening, probing and stopping.
