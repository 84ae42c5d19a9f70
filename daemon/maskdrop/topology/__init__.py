"""What supervisor and workers share: slots for pixels, channels for tickets, a worker's frame."""
