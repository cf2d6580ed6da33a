"""The program that runs inside a sandbox. Old versions stay: locks name the one they used."""
