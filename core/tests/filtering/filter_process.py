"""``planish filter`` in a process of its own, with small shards, to be killed by tests."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import ppm_plugin
    from planish.cli.app import main
    from planish.filtering import shard_writer

    shard_writer.ROWS = 8
    sys.exit(main(sys.argv[1:], registry=ppm_plugin.registry()))
