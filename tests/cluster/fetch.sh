#!/usr/bin/env bash
# Fetches what the tests of this folder run: Beam's job server for Flink, Flink, Prism, Beam's boot, a fake GCS.
#
#   tests/cluster/fetch.sh FOLDER     once; about 1 GB, with what the compilers leave
#   tests/cluster/run.sh FOLDER       as often as you like
#
# Needs Java 11 or newer, Maven, Go and pip. What is there already is not fetched again.
set -euo pipefail

tools=$(mkdir -p -- "${1:?usage: fetch.sh FOLDER}" && cd -- "$1" && pwd -P)
beam=2.77.0 # of the Go programs: as Beam's Python package
job_server=2.62.0 flink=1.19.3
python=${PYTHON:-$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)/.venv/bin/python}

if [ ! -d "$tools/job_server" ]; then
    cat >"$tools/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>job-server</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.beam</groupId><artifactId>beam-runners-flink-1.19</artifactId>
<version>$job_server</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.30</version></dependency>
</dependencies></project>
XML
    mvn -B -q -f "$tools/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$tools/job_server.part"
    mv "$tools/job_server.part" "$tools/job_server"
fi

if [ ! -d "$tools/flink" ]; then
    "$python" -m pip download --quiet --no-deps --no-build-isolation --dest "$tools/download" \
        "apache-flink-libraries==$flink"
    mkdir -p "$tools/flink.part"
    tar -xzf "$tools/download/apache-flink-libraries-$flink.tar.gz" --strip-components 1 -C "$tools/flink.part"
    mv "$tools/flink.part" "$tools/flink"
fi

export GOBIN=$tools/bin GOPATH=$tools/go GOFLAGS=-modcacherw
[ -x "$GOBIN/prism" ] || go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam"
[ -x "$GOBIN/container" ] || go install "github.com/apache/beam/sdks/v2/python/container@v$beam" # boot of a worker
[ -x "$GOBIN/fake-gcs-server" ] || go install github.com/fsouza/fake-gcs-server@v1.56.1
