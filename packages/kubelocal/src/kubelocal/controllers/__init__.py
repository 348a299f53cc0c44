"""The controllers and the scheduler; each decides in a pure function what it then carries out."""
