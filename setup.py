"Everything is said in settings.ini; a bare `setup()` would not find it."
from configparser import ConfigParser

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
about = config["DEFAULT"]

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
    extras_require={"dev": about["dev_requirements"].split(), "sru": ["sru==3.0.0.dev6", "ninja"],
                    "export": ["onnx", "onnxruntime", "onnxscript"], "dask": ["dask", "distributed"], "ray": ["ray"]},
    entry_points={"console_scripts": about["console_scripts"].split()},
)
