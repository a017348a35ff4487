"""Whether a clip is one continuous shot whose frames are in order."""
