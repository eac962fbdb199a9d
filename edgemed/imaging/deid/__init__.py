"""De-identification by PS3.15 Annex E: what tells of a person goes, and a report says what was done to each tag."""
