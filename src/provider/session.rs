//! Walking pages: one ordered stream over the pages of any provider.
