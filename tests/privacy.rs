//! Personal data and passwords stay out of logs, metrics and errors.
