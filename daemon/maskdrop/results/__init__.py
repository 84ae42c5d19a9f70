"""What is made of a picture and its labels, and of which picture it was made. Nothing is written here."""
