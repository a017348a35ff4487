"""How clear the picture is: sharp, free of blocks and noise, well exposed, and filling the frame."""
