//! The real program, as its users run it: started, killed, started again, fed with nonsense.

mod command_line;
mod kill;
mod lost_follower;
mod program;
