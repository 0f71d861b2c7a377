//! sslclient's ways out: STARTTLS dialogues and per-partner policy, against
//! scripted servers and those of others.

mod gate;
mod hostile;
mod policy;
mod upgrade;
