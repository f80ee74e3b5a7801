"""`shapes`: a small X-CLIP trained from nothing on rendered clips of moving shapes with captions."""
