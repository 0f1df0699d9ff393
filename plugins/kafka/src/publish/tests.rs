//! What is under way, through every answer there is.
