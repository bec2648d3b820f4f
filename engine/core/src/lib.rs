//! Catalog, routes, zones and bindings as plain data.
