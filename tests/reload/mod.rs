//! What changes while the host runs. Adapter files that are dropped into the plugins folder: taken over from under load, refused
//! when broken, never opened when nobody needs them. And resources: what is declared now is what runs.

mod broken;
mod clock;
mod files;
mod flow;
mod handlers;
mod kinds;
mod load;
mod memory;
mod resources;
mod search;
mod secrets;
mod under_load;
