/* Lockstep: everything that its library offers, floor by floor from the lowest. A program may include single headers
 * instead. */
#ifndef LOCKSTEP_H
#define LOCKSTEP_H
#include "lockstep/base/base64.h"
#include "lockstep/base/caches.h"
#include "lockstep/base/err.h"
#include "lockstep/base/file.h"
#include "lockstep/base/hash.h"
#include "lockstep/base/ini.h"
#include "lockstep/base/json.h"
#include "lockstep/base/json_out.h"
#include "lockstep/base/library.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/random.h"
#include "lockstep/base/thread.h"
#include "lockstep/base/version.h"

#include "lockstep/math/fingerprint.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/math.h"
#include "lockstep/math/measure.h"
#include "lockstep/math/quant.h"
#include "lockstep/math/scalar.h"

#include "lockstep/net/grpc_server.h"
#include "lockstep/net/http_client.h"
#include "lockstep/net/http_server.h"
#include "lockstep/net/keys.h"
#include "lockstep/net/metrics.h"
#include "lockstep/net/sigv4.h"
#include "lockstep/store/bigtable.h"
#include "lockstep/store/blob.h"
#include "lockstep/store/census.h"
#include "lockstep/store/gc.h"
#include "lockstep/store/kv.h"
#include "lockstep/store/lease.h"
#include "lockstep/store/move.h"
#include "lockstep/store/pin.h"
#include "lockstep/store/store.h"
#include "lockstep/store/table.h"
#include "lockstep/store/table_text.h"
#include "lockstep/store/uploads.h"

#include "lockstep/cluster/comm.h"
#include "lockstep/cluster/launch.h"

#include "lockstep/data/chat.h"
#include "lockstep/data/dataset.h"
#include "lockstep/data/source.h"
#include "lockstep/data/tokenizer.h"

#include "lockstep/model/model.h"
#include "lockstep/model/models.h"

#include "lockstep/train/train.h"

#include "lockstep/serve/api.h"
#include "lockstep/serve/batch.h"
#include "lockstep/serve/generate.h"
#include "lockstep/serve/grammar.h"
#include "lockstep/serve/receipt.h"

#include "lockstep/lab/lab.h"

#endif
