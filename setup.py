"Everything is said in settings.ini; a bare `setup()` would not find it."
from configparser import ConfigParser

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
about = config["DEFAULT"]
dev = about["dev_requirements"].split()

def of_dev(*names): return [r for r in dev if r.startswith(names)]

setup(
    name=about["lib_name"],
    version=about["version"],
    description=about["description"],
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=" + about["min_python"],
    packages=find_packages(include=["vad", "vad.*"]),
    package_data={"vad": ["*.csv", "*.html"]},
    install_requires=about["requirements"].split(),
    extras_require={"dev": dev, "sru": of_dev("sru", "ninja"), "export": of_dev("onnx"),
                    "lite": of_dev("efficientnet"),
                    "dask": of_dev("dask", "distributed"), "ray": ["ray"]},
    entry_points={"console_scripts": about["console_scripts"].split()},
)
