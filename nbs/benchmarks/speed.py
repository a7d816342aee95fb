"Ours, peers and floor on this machine, from a bare checkout: python nbs/benchmarks/speed.py --out FOLDER"
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vad.reproduce.speed import main

main()
