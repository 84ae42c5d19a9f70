"""What is made of a picture and its labels. No file is touched here but to ask for one's name."""
