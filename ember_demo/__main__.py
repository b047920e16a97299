import sys

from ember_demo.cli import main

sys.exit(main())
