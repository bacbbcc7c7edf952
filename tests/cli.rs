//! The command line as a process: what it prints, what it changes, how it ends.
