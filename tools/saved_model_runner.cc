// Runs calls of a SavedModel in TensorFlow's C++ runtime, and times them.
//
//   saved_model_runner <saved_model_dir> <calls> <results> <threads>
//       [<library>...]
//
// Loads the model with LoadSavedModel into a DirectSession and calls it through
// its SignatureDefs: the functions that TensorFlow Serving is made of, without
// Python and without the server. saved_model_runner.py compiles this program
// and writes and reads its files.
//
// <calls> and <results> are TFRecords of tensorflow.Example, the n-th result
// of the n-th call. A call has these features:
//
//   signature      name of the signature.
//   stream         int64; each stream runs in a thread of its own.
//   may_fail       int64; 1 = a failure is a result, 0 = it ends the program.
//   outputs        names of the outputs to write, none or more.
//   inputs/<name>  serialized TensorProto.
//
// An input that is left out is the output of that name of the stream's last
// call that succeeded, or else the signature's default. A result has these:
//
//   status          name of the status code, "OK" for success.
//   message         of the status.
//   microseconds    int64; Session::Run alone, without reading or writing
//                   protos.
//   outputs/<name>  serialized TensorProto.
//
// <threads> is the size of both of the session's thread pools, 0 = TensorFlow's
// choice. A <library> holds operations that are not TensorFlow's own. Prints
// {"load_seconds": ...}. A failure ends in one line on stderr and status 1, and
// leaves no results.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/util.h"
#include "tensorflow/core/example/example.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/lib/io/record_writer.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/errors.h"
#include "tensorflow/core/platform/tstring.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using Clock = std::chrono::steady_clock;
using Tensors = std::map<std::string, tensorflow::Tensor>;

constexpr char kInputs[] = "inputs/";
constexpr char kOutputs[] = "outputs/";

struct Call {
  std::string signature;
  int64_t stream = 0;
  bool may_fail = false;
  std::vector<std::string> outputs;
  tensorflow::protobuf::Map<std::string, tensorflow::TensorProto> inputs;
};

struct Result {
  absl::Status status;
  int64_t microseconds = 0;
  Tensors outputs;
};

absl::Status ParseCall(const tensorflow::tstring& record, Call* call) {
  tensorflow::Example example;
  if (!example.ParseFromArray(record.data(), record.size())) {
    return absl::DataLossError("a call is no Example");
  }
  for (const auto& [key, feature] : example.features().feature()) {
    const auto& bytes = feature.bytes_list().value();
    const auto& integers = feature.int64_list().value();
    absl::string_view name = key;
    if (key == "outputs") {
      call->outputs.assign(bytes.begin(), bytes.end());
    } else if (key == "signature" && bytes.size() == 1) {
      call->signature = bytes[0];
    } else if (key == "stream" && integers.size() == 1) {
      call->stream = integers[0];
    } else if (key == "may_fail" && integers.size() == 1) {
      call->may_fail = integers[0] != 0;
    } else if (!absl::ConsumePrefix(&name, kInputs) || bytes.size() != 1 ||
               !call->inputs[std::string(name)].ParseFromString(bytes[0])) {
      return absl::DataLossError(absl::StrCat("a call has a wrong ", key));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadCalls(const std::string& path, std::vector<Call>* calls) {
  std::unique_ptr<tensorflow::RandomAccessFile> file;
  TF_RETURN_IF_ERROR(
      tensorflow::Env::Default()->NewRandomAccessFile(path, &file));
  tensorflow::io::SequentialRecordReader reader(file.get());
  tensorflow::tstring record;
  absl::Status status;
  while ((status = reader.ReadRecord(&record)).ok()) {
    TF_RETURN_IF_ERROR(ParseCall(record, &calls->emplace_back()));
  }
  return absl::IsOutOfRange(status) ? absl::OkStatus() : status;
}

absl::Status WriteResults(const std::string& path,
                          const std::vector<Result>& results) {
  std::unique_ptr<tensorflow::WritableFile> file;
  TF_RETURN_IF_ERROR(tensorflow::Env::Default()->NewWritableFile(path, &file));
  tensorflow::io::RecordWriter writer(file.get());
  for (const Result& result : results) {
    tensorflow::Example example;
    auto& features = *example.mutable_features()->mutable_feature();
    features["status"].mutable_bytes_list()->add_value(
        absl::StatusCodeToString(result.status.code()));
    features["message"].mutable_bytes_list()->add_value(
        std::string(result.status.message()));
    features["microseconds"].mutable_int64_list()->add_value(
        result.microseconds);
    for (const auto& [name, tensor] : result.outputs) {
      tensorflow::TensorProto proto;
      // Python does not read strings out of tensor_content.
      if (tensor.dtype() == tensorflow::DT_STRING) {
        tensor.AsProtoField(&proto);
      } else {
        tensor.AsProtoTensorContent(&proto);
      }
      features[kOutputs + name].mutable_bytes_list()->add_value(
          proto.SerializeAsString());
    }
    TF_RETURN_IF_ERROR(writer.WriteRecord(example.SerializeAsString()));
  }
  TF_RETURN_IF_ERROR(writer.Close());
  return file->Close();
}

// Makes one call; after it `carried` holds all of its outputs.
absl::Status RunCall(const tensorflow::SavedModelBundleInterface& model,
                     const Call& call, Tensors* carried, Result* result) {
  auto found = model.GetSignatures().find(call.signature);
  if (found == model.GetSignatures().end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no signature \"", call.signature, "\""));
  }
  tensorflow::SignatureDef signature = found->second;
  for (const std::string& name : call.outputs) {
    if (signature.outputs().count(name) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("signature ", call.signature, " has no output ", name));
    }
  }

  // A tensor that is carried is fed as it is: as a proto it would be copied.
  std::vector<std::pair<std::string, tensorflow::Tensor>> inputs;
  for (const auto& [name, tensor] : *carried) {
    auto input = signature.inputs().find(name);
    if (input != signature.inputs().end() && call.inputs.count(name) == 0) {
      inputs.emplace_back(input->second.name(), tensor);
      signature.mutable_inputs()->erase(name);
    }
  }
  TF_RETURN_IF_ERROR(
      tensorflow::saved_model::GetInputValues(signature, call.inputs, inputs));

  // All outputs, as a server fetches them for a request without a filter.
  std::vector<std::string> names, fetches;
  for (const auto& [name, info] : signature.outputs()) {
    names.push_back(name);
    fetches.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> outputs;
  const auto start = Clock::now();
  const absl::Status status =
      model.GetSession()->Run(inputs, fetches, {}, &outputs);
  result->microseconds = std::chrono::duration_cast<std::chrono::microseconds>(
                             Clock::now() - start)
                             .count();
  TF_RETURN_IF_ERROR(status);

  carried->clear();
  for (size_t i = 0; i < names.size(); ++i) {
    carried->emplace(names[i], outputs[i]);
  }
  for (const std::string& name : call.outputs) {
    result->outputs.emplace(name, carried->at(name));
  }
  return absl::OkStatus();
}

// Makes the calls of one stream, up to one that fails and may not.
void RunStream(const tensorflow::SavedModelBundleInterface& model,
               const std::vector<Call>& calls, int64_t stream,
               std::vector<Result>* results) {
  Tensors carried;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].stream != stream) continue;
    Result& result = (*results)[i];
    result.status = RunCall(model, calls[i], &carried, &result);
    if (!result.status.ok() && !calls[i].may_fail) return;
  }
}

absl::Status RunCalls(const tensorflow::SavedModelBundleInterface& model,
                      const std::vector<Call>& calls,
                      std::vector<Result>* results) {
  results->resize(calls.size());
  std::map<int64_t, std::thread> streams;
  for (const Call& call : calls) {
    std::thread& thread = streams[call.stream];
    if (thread.joinable()) continue;
    thread = std::thread(RunStream, std::cref(model), std::cref(calls),
                         call.stream, results);
  }
  for (auto& [stream, thread] : streams) thread.join();
  for (size_t i = 0; i < calls.size(); ++i) {
    const absl::Status& status = (*results)[i].status;
    if (!status.ok() && !calls[i].may_fail) {
      return absl::Status(
          status.code(),
          absl::StrCat("call ", i, " (", calls[i].signature, ", stream ",
                       calls[i].stream, "): ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status RunProgram(int argc, char** argv) {
  int threads = 0;
  if (argc < 5 || !absl::SimpleAtoi(argv[4], &threads) || threads < 0) {
    return absl::InvalidArgumentError(
        "takes <saved_model_dir> <calls> <results> <threads, 0 or more> "
        "[<library>...]");
  }
  for (int i = 5; i < argc; ++i) {
    void* handle;
    TF_RETURN_IF_ERROR(
        tensorflow::Env::Default()->LoadDynamicLibrary(argv[i], &handle));
  }
  std::vector<Call> calls;
  TF_RETURN_IF_ERROR(ReadCalls(argv[2], &calls));

  tensorflow::SessionOptions options;
  options.config.set_intra_op_parallelism_threads(threads);
  options.config.set_inter_op_parallelism_threads(threads);
  tensorflow::SavedModelBundleLite model;
  const auto start = Clock::now();
  // The constant for the tag is not in the package's libraries.
  TF_RETURN_IF_ERROR(tensorflow::LoadSavedModel(
      options, tensorflow::RunOptions(), argv[1], {"serve"}, &model));
  const std::chrono::duration<double> load = Clock::now() - start;

  std::vector<Result> results;
  TF_RETURN_IF_ERROR(RunCalls(model, calls, &results));
  TF_RETURN_IF_ERROR(WriteResults(argv[3], results));
  std::printf("{\"load_seconds\": %.6f}\n", load.count());
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = RunProgram(argc, argv);
  if (status.ok()) return 0;
  const std::string message =
      absl::StrReplaceAll(status.message(), {{"\n", " "}});
  std::fprintf(stderr, "saved_model_runner: error: %s: %s\n",
               absl::StatusCodeToString(status.code()).c_str(),
               message.c_str());
  return 1;
}
