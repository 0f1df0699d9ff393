//! Adapter files that are dropped into the plugins folder while the host runs: taken over from under load, refused when
//! broken, never opened when nobody needs them.

mod broken;
mod files;
mod kinds;
mod load;
mod memory;
mod resources;
mod search;
