"""Operations of a package that is not rasterpipe."""
