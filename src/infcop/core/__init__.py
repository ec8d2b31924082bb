"""Values only: the words of the library, without behaviour of any stage."""
