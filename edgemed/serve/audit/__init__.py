"""The audit trail: who did what, chained and signed, so that an edit or a deletion is found."""
