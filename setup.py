"Everything is said in settings.ini; a bare `setup()` would not find it."
from configparser import ConfigParser
from pathlib import Path
from shutil import copyfile

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
about = config["DEFAULT"]
dev = about["dev_requirements"].split()

def of_dev(*names): return [r for r in dev if r.startswith(names)]

class WithNotebooks(build_py):
    "Packs the notebooks that commands run: `vad reproduce` the papers, `vad bench` the benchmarks."
    def run(self):
        super().run()
        if self.editable_mode: return # they are run where they lie
        folders = Path("nbs/papers"), Path("nbs/benchmarks")
        run = [path for folder in folders for kind in ("*.ipynb", "*.py") for path in folder.glob(kind)]
        for path in sorted(run):
            target = Path(self.build_lib) / "vad" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path, target)

setup(
    name=about["dist_name"], # the index has another package of the name vad
    version=about["version"],
    description=about["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author=about["author"],
    author_email=about["author_email"],
    url=about["git_url"],
    keywords=about["keywords"],
    classifiers=["Development Status :: 4 - Beta", "Intended Audience :: Science/Research",
                 "Operating System :: POSIX", "Programming Language :: Python :: 3",
                 "Topic :: Scientific/Engineering :: Image Recognition"],
    python_requires=">=" + about["min_python"],
    packages=find_packages(include=["vad", "vad.*"]),
    package_dir={"": "."}, # an editable install is then found even beside a folder named vad
    package_data={"vad": ["*.csv", "*.html", "weights/*/*"]},
    install_requires=about["requirements"].split(),
    extras_require={"dev": dev, "sru": of_dev("sru", "ninja"), "export": of_dev("onnx"),
                    "lite": of_dev("efficientnet"), "book": of_dev("sphinx", "myst", "furo", "math"),
                    "dask": of_dev("dask", "distributed"), "ray": ["ray"]},
    entry_points={"console_scripts": about["console_scripts"].split()},
    cmdclass={"build_py": WithNotebooks},
)
