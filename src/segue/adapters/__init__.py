"""Everything that does IO."""
